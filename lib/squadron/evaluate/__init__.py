"""Methods × problems × seeds: run as rows, summarised with intervals and paired differences, shown in the report."""
