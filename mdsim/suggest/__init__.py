"""From a data set to configurations that run as they are: what is in the data, what follows from it, and the files."""
