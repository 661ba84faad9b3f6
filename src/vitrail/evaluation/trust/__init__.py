"""How far answers can be trusted: probabilities, sets of classes, unusual images, drift. Arrays in, numbers out."""
