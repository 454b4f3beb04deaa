"""Force fields under test: those of mdsim and of the packages it reads, ASE calculators and torch-sim models."""
