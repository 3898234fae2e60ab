"""Recording: what is measured (probes), when (schedule), and where it goes (folder, sinks)."""
