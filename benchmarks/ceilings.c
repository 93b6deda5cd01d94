/* What this machine can do at most: multiply-adds in registers, and reading memory that is as large as asked.

   ceilings THREADS BYTES...   prints {"float32": FLOP/s, "float64": FLOP/s, "read": {"BYTES": bytes/s, ...}} */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__AVX512F__)
#define WIDTH 64
#define CHAINS 20 /* of 32 registers: more than latency times units */
#elif defined(__AVX__)
#define WIDTH 32
#define CHAINS 12
#else
#define WIDTH 16
#define CHAINS 12
#endif
typedef float floats __attribute__((vector_size(WIDTH)));
typedef double doubles __attribute__((vector_size(WIDTH)));
typedef int64_t words __attribute__((vector_size(WIDTH)));

#define STREAMS 4
#define HUGE_PAGE (2L << 20)
#define ROUNDS 5
#define STEPS 2000000L
#define MOST_THREADS 256

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

#define MULTIPLY_ADD(name, vectors, element)                                                                       \
    static double name(long steps) {                                                                               \
        vectors sum[CHAINS], a, b;                                                                                 \
        for (unsigned k = 0; k < WIDTH / sizeof(element); k++) {                                                   \
            a[k] = (element)0.999;                                                                                 \
            b[k] = (element)0.001;                                                                                 \
        }                                                                                                          \
        for (int k = 0; k < CHAINS; k++) sum[k] = b;                                                               \
        for (long i = 0; i < steps; i++) {                                                                         \
            _Pragma("GCC unroll 32") for (int k = 0; k < CHAINS; k++) sum[k] = sum[k] * a + b;                     \
        }                                                                                                          \
        vectors all = sum[0];                                                                                      \
        for (int k = 1; k < CHAINS; k++) all += sum[k];                                                            \
        return all[0];                                                                                             \
    }
MULTIPLY_ADD(add_floats, floats, float)
MULTIPLY_ADD(add_doubles, doubles, double)

/* Several places at once keep more requests under way than one stream. */
static int64_t read_all(const char *from, long bytes) {
    words sum[2 * STREAMS];
    memset(sum, 0, sizeof sum);
    long part = bytes / STREAMS;
    for (long at = 0; at + 2 * WIDTH <= part; at += 2 * WIDTH) {
        _Pragma("GCC unroll 8") for (int k = 0; k < STREAMS; k++) {
            sum[2 * k] ^= *(const words *)(from + k * part + at);
            sum[2 * k + 1] ^= *(const words *)(from + k * part + at + WIDTH);
        }
    }
    words all = sum[0];
    for (int k = 1; k < 2 * STREAMS; k++) all ^= sum[k];
    return all[0];
}

enum work { FLOATS, DOUBLES, READ };
struct share {
    enum work work;
    long steps, bytes;
    const char *from;
    double result;
};
static pthread_barrier_t together;
static int threads;

static void once(struct share *s) {
    if (s->work == FLOATS) s->result += add_floats(s->steps);
    if (s->work == DOUBLES) s->result += add_doubles(s->steps);
    if (s->work == READ)
        for (long i = 0; i < s->steps; i++) {
            s->result += (double)read_all(s->from, s->bytes);
            __asm__ volatile("" ::: "memory");
        }
}

static void *other(void *argument) {
    for (int i = 0; i < ROUNDS; i++) {
        pthread_barrier_wait(&together);
        once(argument);
        pthread_barrier_wait(&together);
    }
    return NULL;
}

/* The shortest time of all threads doing their share at once. */
static double shortest(struct share *shares) {
    pthread_t started[MOST_THREADS];
    double best = 1e30;
    pthread_barrier_init(&together, NULL, (unsigned)threads);
    for (int t = 1; t < threads; t++) pthread_create(&started[t], NULL, other, &shares[t]);
    for (int i = 0; i < ROUNDS; i++) {
        pthread_barrier_wait(&together);
        double start = now();
        once(&shares[0]);
        pthread_barrier_wait(&together);
        double seconds = now() - start;
        if (seconds < best) best = seconds;
    }
    for (int t = 1; t < threads; t++) pthread_join(started[t], NULL);
    pthread_barrier_destroy(&together);
    return best;
}

int main(int count, char **given) {
    if (count < 2) return 2;
    threads = atoi(given[1]);
    if (threads < 1 || threads > MOST_THREADS) return 2;
    static struct share shares[MOST_THREADS];
    double flops[2];
    for (int wide = 0; wide < 2; wide++) {
        for (int t = 0; t < threads; t++) shares[t] = (struct share){wide ? DOUBLES : FLOATS, STEPS, 0, NULL, 0};
        double lanes = WIDTH / (wide ? 8.0 : 4.0);
        flops[wide] = 2.0 * lanes * CHAINS * STEPS * threads / shortest(shares);
    }
    printf("{\"float32\": %.6g, \"float64\": %.6g, \"read\": {", flops[0], flops[1]);
    for (int i = 2; i < count; i++) {
        long bytes = atol(given[i]), part = bytes / threads / 1024 * 1024;
        if (part < 1024) part = 1024;
        size_t size = (size_t)((part * threads + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
        char *memory = aligned_alloc(HUGE_PAGE, size);
        if (!memory) return 1;
#ifdef MADV_HUGEPAGE
        if (size > HUGE_PAGE) madvise(memory, size, MADV_HUGEPAGE); /* as NumPy does for large arrays */
#endif
        memset(memory, 1, (size_t)(part * threads));
        long times = 64000000 / (part * threads) + 1;
        for (int t = 0; t < threads; t++) shares[t] = (struct share){READ, times, part, memory + t * part, 0};
        printf("%s\"%ld\": %.6g", i > 2 ? ", " : "", bytes, (double)part * threads * times / shortest(shares));
        free(memory);
    }
    printf("}}\n");
    return 0;
}
