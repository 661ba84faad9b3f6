"""Pictures of results, drawn with matplotlib: plain Figure objects, which leave matplotlib's global state alone."""
