"""Force fields of other packages, each from its own files, on top of `EdgeModel`."""
