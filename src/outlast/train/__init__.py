"""In a training process (needs torch): `Run`, for people with their own loop."""
