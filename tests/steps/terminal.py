"""Runs a command on a terminal of its own, and prints what comes out of it.

terminal.py [--columns N] [--type KEYS] [--expect TEXT]... -- COMMAND...

Keys are typed, and texts waited for, in the order given; colours are no part of a text. Ends as the
command does, or with 124 when a text does not come within 30 seconds.
"""

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

PATIENCE = 30
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x07")


def main():
    columns, script, command = arguments(sys.argv[1:])
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    shown, seen = b"", 0
    for verb, text in script:
        if verb == "--type":
            os.write(terminal, text)
            continue
        ends = time.monotonic() + PATIENCE
        while (at := ESCAPES.sub(b"", shown).find(text, seen)) < 0:
            more = read(terminal, ends)
            if not more:
                sys.stdout.buffer.write(shown)
                print(f"\n{sys.argv[0]}: {text.decode()!r} did not come", file=sys.stderr)
                os.kill(child, signal.SIGKILL)
                sys.exit(124)
            shown += more
        seen = at + len(text)
    ends = time.monotonic() + PATIENCE
    while more := read(terminal, ends):
        shown += more
    sys.stdout.buffer.write(shown)
    sys.stdout.flush()
    if time.monotonic() >= ends:
        os.kill(child, signal.SIGKILL)
        sys.exit(124)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def arguments(given):
    end = given.index("--")
    columns, script = 80, []
    for verb, value in zip(given[:end:2], given[1:end:2]):
        if verb == "--columns":
            columns = int(value)
        else:
            script.append((verb, value.encode()))
    return columns, script, given[end + 1 :]


def read(terminal, ends):
    """What came; nothing at the end, and when time is up."""
    ready, _, _ = select.select([terminal], [], [], max(0, ends - time.monotonic()))
    if not ready:
        return b""
    try:
        return os.read(terminal, 65536)
    except OSError as error:
        # Linux says so when the other side has been closed.
        if error.errno == errno.EIO:
            return b""
        raise


main()
