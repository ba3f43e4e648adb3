"""Rules of other scanners, read and written anew as patterns; what cannot be is named."""
