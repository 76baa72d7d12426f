"""`maft clean`: which runs a cluster has, for the program that knows stores."""
