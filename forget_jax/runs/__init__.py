"""A run's folder: its config, metrics and summary, what is done only once, and what people watch.

The room knows neither commands nor language models. Its files on disk are read by every later stage
of a run, by a second start that resumes it, and by the page. Process 0 decides what is on the disk
and alone writes to it; all processes go on with what it says.
"""
