"""What `./dev.sh demo` shows: the parts that exist, working together on several Docker hosts."""
