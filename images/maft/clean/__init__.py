"""`maft clean`: what runs that are gone have left in a store."""
