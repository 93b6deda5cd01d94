pierian 1

graph "graph" (%placeholder, %placeholder_1, %placeholder_2, %placeholder_3) {
  %placeholder = placeholder() {type = float32[2, 16, 8, 8]} : float32[2, 16, 8, 8]
  %placeholder_1 = placeholder() {type = float32[3, 3, 16, 16]} : float32[3, 3, 16, 16]
  %placeholder_2 = placeholder() {type = float32[16]} : float32[16]
  %placeholder_3 = placeholder() {type = float32[3, 3, 16, 16]} : float32[3, 3, 16, 16]
  %permute_dims = permute_dims(%placeholder) {axes = (0, 2, 3, 1)} : float32[2, 8, 8, 16]
  %pad = pad(%permute_dims) {before = (0, 1, 1, 0), after = (0, 1, 1, 0), value = 0} : float32[2, 10, 10, 16]
  %conv_general = conv_general(%pad, %placeholder_1) {strides = (1, 1), dilations = (1, 1)} : float32[2, 8, 8, 16]
  %constant = constant() {value = float32[] [0.0]} : float32[]
  %reshape_3 = reshape(%placeholder_2) {shape = (1, 1, 1, 16)} : float32[1, 1, 1, 16]
  %add_1 = add(%conv_general, %reshape_3) : float32[2, 8, 8, 16]
  %maximum_1 = maximum(%add_1, %constant) : float32[2, 8, 8, 16]
  %pad_1 = pad(%maximum_1) {before = (0, 1, 1, 0), after = (0, 1, 1, 0), value = 0} : float32[2, 10, 10, 16]
  %conv_general_1 = conv_general(%pad_1, %placeholder_3) {strides = (1, 1), dilations = (1, 1)} : float32[2, 8, 8, 16]
  %permute_dims_3 = permute_dims(%conv_general_1) {axes = (0, 3, 1, 2)} : float32[2, 16, 8, 8]
  return %permute_dims_3 as "y"
}
