"""HTTP services and their web pages; they need the extra ``browser``."""
