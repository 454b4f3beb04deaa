"""What a run leaves for people to read: scalars, console lines, figures and trajectory files."""
