"""The native thread pool, as LLVM IR: the same code serves compiled graphs in memory and in C libraries.

    ptr  pierian_pool_create(i64 threads)       threads includes the caller's
    i64  pierian_pool_grow(ptr pool, i64 threads)    how many it has then
    void pierian_pool_destroy(ptr pool)
    void pierian_parallel(ptr pool, ptr phase, ptr args, i64 tasks, ptr scratch, i64 stride)

A parallel region is opened by the caller, which works too. A worker that notices an open region joins it, takes chunks of
tasks from a shared counter until none is left, and leaves; the caller closes the region when it finds no more tasks and waits
only for those that have joined, so a worker still asleep costs nothing. Workers that find nothing to do spin for some tens of
microseconds (back-to-back kernels) and then sleep on a futex. A second caller of a busy pool runs its tasks by itself, as does
a caller without a pool, so that no more threads run than the pool has.

A caller may have a share of a pool: a record of its own, with the first fields of a pool, that says how many of the pool's threads
work for it. All shares are busy when one is, and the pool's workers wait in one place, whichever share they have worked for.
"""

from __future__ import annotations

from pierian.compiler.codegen.writer import NULL, FunctionWriter, Value, i32, i64

# Layout of the pool in bytes; what different threads write lies on cache lines of its own.
PARALLEL = 0  # address of pierian_parallel, for code in other modules
THREADS = 8  # how many threads work, the caller included
CORE = 16  # address of the pool; of the record itself in a pool
SHARE = 24  # bytes of a share: the fields up to here
STOP = 32  # i32: workers shall end
WORKERS = 40  # i64: how many have been started
EPOCH = 64  # i32, futex: counts opened regions
SLEEPERS = 128  # i32: workers in futex wait
STATE = 192  # i32: bit 30 open; then, 8 bits each: how many workers may join, have joined, are at work
BUSY = 256  # i32: a caller holds the pool
NEXT = 320  # i64: next task to take
PHASE, ARGS, TASKS, SCRATCH, STRIDE, CHUNK = 384, 392, 400, 408, 416, 424
HANDLES = 512  # pthread_t of each worker
MAX_THREADS = 256
SIZE = HANDLES + 8 * MAX_THREADS

_OPEN = 1 << 30
_MAY_JOIN, _HAVE_JOINED, _COUNT = 16, 8, 0xFF
# About 60 us. Measured on two Zen 4 cores: a region with nothing to do costs the caller 0.2 us while workers spin; 40 us of work
# take 27 us then, and 44 us when the worker has to be woken.
_SPINS = 3000
_CHUNKS = 16  # for each thread
_FUTEX_WAIT, _FUTEX_WAKE = 128, 129  # private to the process
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
# The instruction that tells a processor that its thread only waits, as an intrinsic and its arguments.
_PAUSE = {"x86_64": ("llvm.x86.sse2.pause", ()), "aarch64": ("llvm.aarch64.hint", (i32(1),))}

DECLARATIONS = (
    "declare ptr @aligned_alloc(i64, i64)",
    "declare void @free(ptr)",
    "declare i32 @pthread_create(ptr, ptr, ptr, ptr)",
    "declare i32 @pthread_join(i64, ptr)",
    "declare i64 @syscall(i64, ...)",
    "declare i32 @sched_yield()",
)


def pool_text(architecture: str, linkage: str = "") -> str:
    """The pool's functions for `x86_64`, `aarch64` or `riscv64` under Linux."""
    number = _SYS_FUTEX.get(architecture, _SYS_FUTEX["x86_64"])
    parts = [
        _work(),
        _worker(number, architecture),
        _parallel(linkage, number, architecture),
        _create(linkage),
        _destroy(linkage, number),
        *DECLARATIONS,
        "",
    ]
    return "\n".join(parts)


def _field(f: FunctionWriter, pool: Value, offset: int) -> Value:
    return f.gep(pool, "i8", i64(offset))


def _load(f: FunctionWriter, pool: Value, offset: int, type_: str) -> Value:
    return f.load(_field(f, pool, offset), type_, 8)


def _atomic(f: FunctionWriter, op: str, pool: Value, offset: int, value: Value) -> Value:
    return f.emit(f"atomicrmw {op} {_field(f, pool, offset)}, {value} seq_cst", value.type)


def _atomic_load(f: FunctionWriter, pool: Value, offset: int, order: str = "acquire") -> Value:
    return f.emit(f"load atomic i32, {_field(f, pool, offset)} {order}, align 4", "i32")


def _work() -> str:
    """Take chunks until no task is left; `number` of the thread in this region says whose scratch memory to use."""
    f = FunctionWriter("pierian_pool_work", "void", [("pool", "ptr"), ("number", "i64")])
    pool = f.arg("pool")
    phase, args = _load(f, pool, PHASE, "ptr"), _load(f, pool, ARGS, "ptr")
    tasks, chunk = _load(f, pool, TASKS, "i64"), _load(f, pool, CHUNK, "i64")
    offset = f.mul(f.arg("number"), _load(f, pool, STRIDE, "i64"))
    scratch = f.gep(_load(f, pool, SCRATCH, "ptr"), "i8", offset)
    again, body, done = f.label("again"), f.label("body"), f.label("done")
    f.br(again)
    f.start(again)
    begin = _atomic(f, "add", pool, NEXT, chunk)
    f.cond_br(f.cmp("icmp slt", begin, tasks), body, done)
    f.start(body)
    end = f.minimum(f.add(begin, chunk), tasks)
    f.line(f"call void {phase.text}({args}, {begin}, {end}, {scratch})")
    f.br(again)
    f.start(done)
    f.ret()
    return f.finish() + "\n".join(sorted(f.declarations)) + "\n"


def _pause(f: FunctionWriter, architecture: str) -> None:
    if architecture in _PAUSE:
        name, args = _PAUSE[architecture]
        f.call(name, "void", args)


def _worker(futex: int, architecture: str) -> str:
    """A worker's life."""
    f = FunctionWriter("pierian_pool_worker", "ptr", [("pool", "ptr")])
    pool = f.arg("pool")
    seen = f.alloca("i32")
    spins = f.alloca("i64")
    f.store(i32(0), seen, 4)
    wait, check, spin, sleep, opened, join, work, end = (
        f.label(name) for name in ("wait", "check", "spin", "sleep", "opened", "join", "work", "end")
    )
    f.store(i64(0), spins, 8)
    f.br(wait)
    f.start(wait)
    stop = _atomic_load(f, pool, STOP)
    f.cond_br(f.cmp("icmp ne", stop, i32(0)), end, check)
    f.start(check)
    epoch = _atomic_load(f, pool, EPOCH, "seq_cst")
    f.cond_br(f.cmp("icmp ne", epoch, f.load(seen, "i32", 4)), opened, spin)
    f.start(spin)
    count = f.load(spins, "i64", 8)
    f.store(f.op("add", count, i64(1)), spins, 8)
    _pause(f, architecture)
    f.cond_br(f.cmp("icmp slt", count, i64(_SPINS)), wait, sleep)
    f.start(sleep)
    _atomic(f, "add", pool, SLEEPERS, i32(1))
    word = _field(f, pool, EPOCH)
    f.emit(
        f"call i64 (i64, ...) @syscall(i64 {futex}, {word}, i32 {_FUTEX_WAIT}, {epoch}, ptr null, ptr null, i32 0)",
        "i64",
    )
    _atomic(f, "sub", pool, SLEEPERS, i32(1))
    f.store(i64(0), spins, 8)
    f.br(wait)
    f.start(opened)
    f.store(epoch, seen, 4)
    f.store(i64(0), spins, 8)
    f.br(join)
    f.start(join)
    state = _atomic_load(f, pool, STATE)
    is_open = f.cmp("icmp ne", f.op("and", state, i32(_OPEN)), i32(0))
    joined = _count(f, state, _HAVE_JOINED)
    has_room = f.cmp("icmp ult", joined, _count(f, state, _MAY_JOIN))
    attempt = f.label("attempt")
    f.cond_br(f.op("and", is_open, has_room), attempt, wait)
    f.start(attempt)
    # Room and region are in one word: where the exchange succeeds, what was read still holds.
    more = f.op("add", state, i32((1 << _HAVE_JOINED) + 1))
    pair = f.emit(f"cmpxchg {_field(f, pool, STATE)}, {state}, {more} seq_cst seq_cst", "{ i32, i1 }")
    taken = f.emit(f"extractvalue {pair}, 1", "i1")
    f.cond_br(taken, work, join)
    f.start(work)
    f.call("pierian_pool_work", "void", [pool, f.cast("zext", f.op("add", joined, i32(1)), "i64")])
    _atomic(f, "sub", pool, STATE, i32(1))
    f.br(wait)
    f.start(end)
    f.ret(NULL)
    return f.finish() + _trampoline()


def _count(f: FunctionWriter, state: Value, shift: int) -> Value:
    return f.op("and", f.op("lshr", state, i32(shift)), i32(_COUNT))


def _trampoline() -> str:
    """pthread's start routine: the argument points at the worker's handle inside the pool, which is aligned."""
    f = FunctionWriter("pierian_pool_start", "ptr", [("handle", "ptr")])
    address = f.emit(f"ptrtoint {f.arg('handle')} to i64", "i64")
    base = f.op("and", address, i64(-POOL_ALIGNMENT))
    f.ret(f.call("pierian_pool_worker", "ptr", [f.emit(f"inttoptr {base} to ptr", "ptr")]))
    return f.finish()


POOL_ALIGNMENT = 4096


def _parallel(linkage: str, futex: int, architecture: str) -> str:
    f = FunctionWriter(
        "pierian_parallel",
        "void",
        [("pool", "ptr"), ("phase", "ptr"), ("args", "ptr"), ("tasks", "i64"), ("scratch", "ptr"), ("stride", "i64")],
        linkage,
    )
    share, tasks = f.arg("pool"), f.arg("tasks")
    alone, several, claim, shared, wake, work, wait, relaxed, close = (
        f.label(n) for n in ("alone", "several", "claim", "shared", "wake", "work", "wait", "relaxed", "close")
    )
    without = f.cmp("icmp eq", share, NULL)
    single = f.cmp("icmp sle", tasks, i64(1))
    f.cond_br(f.op("or", without, single), alone, several)
    f.start(several)
    threads = _load(f, share, THREADS, "i64")
    f.cond_br(f.cmp("icmp sgt", threads, i64(1)), claim, alone)
    f.start(claim)
    pool = _load(f, share, CORE, "ptr")
    pair = f.emit(f"cmpxchg {_field(f, pool, BUSY)}, i32 0, i32 1 seq_cst seq_cst", "{ i32, i1 }")
    f.cond_br(f.emit(f"extractvalue {pair}, 1", "i1"), shared, alone)
    f.start(alone)
    f.line(f"call void {f.arg('phase').text}({f.arg('args')}, i64 0, {tasks}, {f.arg('scratch')})")
    f.ret()
    f.start(shared)
    for name, offset in (("phase", PHASE), ("args", ARGS), ("tasks", TASKS), ("scratch", SCRATCH), ("stride", STRIDE)):
        f.store(f.arg(name), _field(f, pool, offset), 8)
    # Many chunks for each thread even out their speeds; where tasks are few, each is a chunk.
    parts = f.op("mul", threads, i64(_CHUNKS))
    chunk = f.intrinsic("llvm.smax", f.op("sdiv", tasks, parts), i64(1))
    f.store(chunk, _field(f, pool, CHUNK), 8)
    f.line(f"store atomic i64 0, {_field(f, pool, NEXT)} release, align 8")
    room = f.cast("trunc", f.op("sub", threads, i64(1)), "i32")
    opened = f.op("or", f.op("shl", room, i32(_MAY_JOIN)), i32(_OPEN))
    f.line(f"store atomic {opened}, {_field(f, pool, STATE)} seq_cst, align 4")
    _atomic(f, "add", pool, EPOCH, i32(1))
    sleepers = _atomic_load(f, pool, SLEEPERS, "seq_cst")
    f.cond_br(f.cmp("icmp ne", sleepers, i32(0)), wake, work)
    f.start(wake)
    word = _field(f, pool, EPOCH)
    f.emit(
        f"call i64 (i64, ...) @syscall(i64 {futex}, {word}, i32 {_FUTEX_WAKE}, {room}, ptr null, ptr null, i32 0)",
        "i64",
    )
    f.br(work)
    f.start(work)
    f.call("pierian_pool_work", "void", [pool, i64(0)])
    _atomic(f, "and", pool, STATE, i32(~_OPEN))
    spun = f.alloca("i64")
    f.store(i64(0), spun, 8)
    f.br(wait)
    f.start(wait)
    joined = _atomic_load(f, pool, STATE)
    f.cond_br(f.cmp("icmp eq", f.op("and", joined, i32(_COUNT)), i32(0)), close, relaxed)
    f.start(relaxed)
    _pause(f, architecture)
    count = f.load(spun, "i64", 8)
    f.store(f.op("add", count, i64(1)), spun, 8)
    with f.when(f.cmp("icmp sgt", count, i64(20 * _SPINS))):
        f.call("sched_yield", "i32", [])
    f.br(wait)
    f.start(close)
    f.line(f"store atomic i32 0, {_field(f, pool, BUSY)} release, align 4")
    f.ret()
    return f.finish() + "\n".join(sorted(f.declarations)) + "\n"


def _create(linkage: str) -> str:
    f = FunctionWriter("pierian_pool_create", "ptr", [("threads", "i64")], linkage)
    pool = f.call("aligned_alloc", "ptr", [i64(POOL_ALIGNMENT), i64(POOL_ALIGNMENT)])
    with f.when(f.cmp("icmp eq", pool, NULL)):
        f.ret(NULL)
        f.start(f.label("unreached"))
    f.line(f"call void @llvm.memset.p0.i64({pool}, i8 0, i64 {POOL_ALIGNMENT}, i1 false)")
    f.declarations.add("declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
    f.store(Value("@pierian_parallel", "ptr"), _field(f, pool, PARALLEL), 8)
    f.store(pool, _field(f, pool, CORE), 8)
    f.store(f.call("pierian_pool_grow", "i64", [pool, f.arg("threads")]), _field(f, pool, THREADS), 8)
    f.ret(pool)
    return f.finish() + _grow(linkage)


def _grow(linkage: str) -> str:
    """More workers, as long as the system gives threads. The caller sees to it that nobody else grows the pool meanwhile."""
    f = FunctionWriter("pierian_pool_grow", "i64", [("pool", "ptr"), ("threads", "i64")], linkage)
    pool = f.arg("pool")
    wanted = f.intrinsic("llvm.smax", f.minimum(f.arg("threads"), i64(MAX_THREADS)), i64(1))
    with f.loop(f.add(_load(f, pool, WORKERS, "i64"), i64(1)), wanted) as loop:
        started = _load(f, pool, WORKERS, "i64")
        with f.when(f.cmp("icmp eq", f.add(started, i64(1)), loop.index)):  # none has failed yet
            handle = f.gep(_field(f, pool, HANDLES), "i64", started)
            failed = f.call("pthread_create", "i32", [handle, NULL, Value("@pierian_pool_start", "ptr"), handle])
            one = f.cast("zext", f.cmp("icmp eq", failed, i32(0)), "i64")
            f.store(f.op("add", started, one), _field(f, pool, WORKERS), 8)
    f.ret(f.minimum(wanted, f.add(_load(f, pool, WORKERS, "i64"), i64(1))))
    return f.finish() + "\n".join(sorted(f.declarations)) + "\n"


def _destroy(linkage: str, futex: int) -> str:
    f = FunctionWriter("pierian_pool_destroy", "void", [("pool", "ptr")], linkage)
    pool = f.arg("pool")
    with f.when(f.cmp("icmp ne", pool, NULL)):
        f.line(f"store atomic i32 1, {_field(f, pool, STOP)} seq_cst, align 4")
        _atomic(f, "add", pool, EPOCH, i32(1))
        word = _field(f, pool, EPOCH)
        f.emit(
            f"call i64 (i64, ...) @syscall(i64 {futex}, {word}, i32 {_FUTEX_WAKE}, i32 {MAX_THREADS}, ptr null, ptr null, i32 0)",
            "i64",
        )
        with f.loop(i64(0), _load(f, pool, WORKERS, "i64")) as loop:
            handle = f.load(f.gep(_field(f, pool, HANDLES), "i64", loop.index), "i64", 8)
            f.call("pthread_join", "i32", [handle, NULL])
        f.call("free", "void", [pool])
    f.ret()
    return f.finish()
