"""One module a verb: its arguments (`add_arguments`) and what it does (`run`)."""
