"""Reading a folder's files in several processes that hold no keys."""
