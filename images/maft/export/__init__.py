"""The program that hands on what a run has made: to servers, trackers, registries and folders."""
