"""What every job stands on: configuration, run folder, cluster, rows, report and command line."""
