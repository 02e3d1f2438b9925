"""A session in a Jupyter kernel: train, save, load, sample, interrupt, go on."""

import os
import signal
import time

import pytest

jupyter_client = pytest.importorskip("jupyter_client", reason="jupyter_client is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Jupyter

SETUP = """
import jax, jaxlm, pathlib
text = pathlib.Path("text.txt")
text.write_text("to be, or not to be, that is the question\\n" * 50)
config = jaxlm.TrainConfig(text=text, tokenizer="char", num_steps=20, log_every=5, device="cpu")
kept = "a variable of the user"
"""
TRAIN = """
run = jaxlm.start_run(config, "runs/mlp")
model, variables, tokenizer = jaxlm.load_model(run, "last")
jaxlm.save_model("saved", model, variables, tokenizer)
ids = jaxlm.sample(*jaxlm.load_model("saved")[:2], tokenizer.encode("to "), 10, key=jax.random.key(0))
print(len(tokenizer.decode(ids)))
"""
LONG = """
print("begin", flush=True)
jaxlm.start_run(jaxlm.TrainConfig(text=text, tokenizer="char", num_steps=2**30, device="cpu"), "runs/long")
"""
FIT = """
print("begin", flush=True)
jaxlm.train_lm(model, tokenizer.encode(text.read_text()), key=jax.random.key(0), num_steps=2**30)
"""


@pytest.fixture
def kernel(tmp_path):
    """A started kernel, and a function that runs code in it and returns what it prints and its error."""
    manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3", cwd=str(tmp_path))

    def run(code, on_begin=lambda: None):
        printed = []

        def read(message):
            match message["msg_type"], message["content"]:
                case "stream", {"name": "stdout", "text": text}:
                    printed.append(text)
                    if "begin" in text:
                        on_begin()

        reply = client.execute_interactive(code, timeout=120, output_hook=read)["content"]
        error = f"{reply['ename']}: {reply['evalue']}" if reply["status"] == "error" else None
        return "".join(printed), error

    yield manager, run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows interrupts a kernel by an event")
def test_a_session_in_a_kernel(kernel):
    manager, run = kernel
    assert run(SETUP) == ("", None)
    assert run(TRAIN) == ("13\n", None)

    def stop_twice(wait):
        def stop():
            for _ in range(2):
                time.sleep(wait)
                manager.signal_kernel(signal.SIGINT)

        return stop

    for wait in (0.3, 1.5):  # while it compiles, and while it trains
        printed, error = run(LONG.replace("runs/long", f"runs/long-{wait}"), stop_twice(wait))
        assert printed.startswith("begin")
        # IPython prints no error if the second signal interrupts its report of the first.
        assert error is None or error.startswith("KeyboardInterrupt: ")
    run(FIT, stop_twice(0.5))
    assert manager.is_alive()
    assert run("print(kept)") == ("a variable of the user\n", None)
    assert run("print([row['state'] for row in jaxlm.list_runs('runs')])")[0].count("interrupted") == 2
    assert run("print(jaxlm.resume_run(run) == run)") == ("True\n", None)
