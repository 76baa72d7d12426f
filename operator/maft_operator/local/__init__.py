"""`maft run`: tasks and servers as processes of this machine."""
