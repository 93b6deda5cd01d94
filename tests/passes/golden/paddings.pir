pierian 1

graph "padded" (%x) {
  %x = placeholder() {type = float32[n, 5, w, 3]} : float32[n, 5, w, 3]
  %constant = constant() {value = float32[] [255.0]} : float32[]
  %divide = divide(%x, %constant) : float32[n, 5, w, 3]
  %pad = pad(%divide) {before = (0, 1, 1, 0), after = (0, 2, 1, 0), value = 0.5} : float32[n, 8, w+2, 3]
  %slice = slice(%pad) {begin = (0, 1, 0, 0), end = (<n>, 7, <w+2>, 3), step = (1, 1, 1, 1)} : float32[n, 6, w+2, 3]
  return %pad as "y0", %slice as "y1"
}
