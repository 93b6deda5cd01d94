"""How arrays, tuples, lists and bytes lie in memory, in bytes: the public binary interface of CPython and NumPy on 64-bit machines.

`pierian.runtime.native` checks it once per process and does without where it does not hold.
"""

OBJECT_TYPE = 8
TUPLE_SIZE, TUPLE_ITEMS = 16, 24
LIST_ITEMS = 24  # a pointer to the items
ARRAY_DATA, ARRAY_RANK, ARRAY_SHAPE, ARRAY_DTYPE, ARRAY_FLAGS = 16, 24, 32, 56, 64
CONTIGUOUS_AND_ALIGNED = 0x101
BYTES_ITEMS = 32
