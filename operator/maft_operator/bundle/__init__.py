"""`maft bundle`: what somebody who helps needs to know of a run, in one archive, without secrets."""
