"""Loop kernels: pointwise work and rows, as vector loops over ranges of tasks.

The nest is chosen by shape alone. `pointwise`: no inner axes, one axis is vectorized. `rows`: every outer point walks
its inner axes, the last of them in vectors. `columns`: inner axes are walked one by one while the lanes lie along the
last outer axis (sums over leading axes). `squares`: no inner axes, but loads and stores lie along different axes.
`windows`: small windows that neighbours share, and elements around edges or apart from lane to lane (depthwise
convolution, pooling, padding), in tiles; chosen by `pierian.compiler.schedule.windows`. A reduction with few outer points
is cut into blocks: a first phase leaves one partial result for each block, a second combines them in order.

`plan` makes these choices, `rows`, `stripes`, `vectors`, `squares` and `blocks` write the nests, each building on those before it.
"""
