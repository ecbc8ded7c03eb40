"""Processes by fork of one that has imported what is large.

A worker of Ray that loads a model spends most of its life importing: with torch and transformers, six seconds of a
core, some hundreds of times in a suite. `server.py` imports once and becomes, by a fork, whatever script it is asked to
run; `client.py` asks; Ray starts `worker.py` in place of its own script; `driver.py` is `squadron` in such a process.

A fork has its parent's memory, but none of its threads: the server must have one alone. What imports leave behind that
depends on the environment, such as the number of threads of a library, is set anew in the fork.
"""
