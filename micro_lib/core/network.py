"""Whether a server can be reached."""

import queue
import threading
from urllib.parse import urlsplit

import requests


def await_answer(url: str, timeout_s: float) -> None:
    """Raise OSError, which says in words what is wrong, unless a server answers in time, whatever it answers.

    Parameters
    ----------
    url : str
        Address of something on the server; nothing but its head is asked for.
    timeout_s : float
        How long to wait in s, looking up the server's name included.

    Raises
    ------
    TimeoutError
        If nothing has come in time.
    ConnectionError
        If the server cannot be reached.
    """
    answers: queue.Queue = queue.Queue()

    def ask() -> None:
        try:
            requests.head(url, timeout=timeout_s)
            answers.put(None)
        except requests.RequestException as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()  # a name look-up has no time limit of its own
    server = urlsplit(url).netloc
    try:
        fault = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(f"no answer from {server} within {timeout_s:g} s, this machine seems offline") from None
    if fault is not None:
        name = type(fault).__name__
        raise ConnectionError(f"{server} cannot be reached ({name}), this machine seems offline") from fault
