pierian 1

graph "padded" (%x) {
  %x = placeholder() {type = float32[n, 5, w, 3]} : float32[n, 5, w, 3]
  %constant = constant() {value = float32[] [255.0]} : float32[]
  %divide = divide(%x, %constant) : float32[n, 5, w, 3]
  %reshape = reshape(%divide) {shape = (<n>, 5, <3*w>)} : float32[n, 5, 3*w]
  %pad_2 = pad(%reshape) {before = (0, 1, 3), after = (0, 2, 3), value = 0.5} : float32[n, 8, 3*w+6]
  %reshape_1 = reshape(%pad_2) {shape = (<n>, 8, <w+2>, 3)} : float32[n, 8, w+2, 3]
  %slice = slice(%reshape_1) {begin = (0, 1, 0, 0), end = (<n>, 7, <w+2>, 3), step = (1, 1, 1, 1)} : float32[n, 6, w+2, 3]
  return %reshape_1 as "y0", %slice as "y1"
}
