"""Archives: bytes in, members out. Pure: nothing is ever written, a name is only ever shown."""
