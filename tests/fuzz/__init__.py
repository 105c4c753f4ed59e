"""Generated cases that look for what breaks: see __main__ for how to run them by hand.

Each module has one kind of case; `joined` is what `dialogue` runs over. `messages` needs no network
and leaves the search to hypothesis.
The others make each case from a random number generator of its own, whose seed is the run's seed,
the kind and the case's number, so that one case can be made again without those before it; what
the two libraries, the kernel and the threads do besides is as it happens to be.

    messages    what the message layer makes of bytes
    dialogue    the two sides of a connection, joined in memory, over any order of events
    frames      a client's WebSocket frames, against a server in a process of its own
    heads       HTTP requests, against the same
    dialogues   a client's messages that run commands, against the same
    clients     a server's answer and its frames, against our client
"""
