"""Accelerator plugins that misbehave: real wheels, with an entry point of `jax_plugins`, made and installed.

The accelerator of each is a second CPU client of XLA, registered under a name of its own by JAX's public
`register_backend_factory`: another backend with devices, buffers and programs of its own. `works` is no more
than that. What goes wrong in the others is real where it can be: exceptions, hangs in each of the three places
where JAX calls a plugin, a process ended by `abort`, output, processes left behind.

Three are stand-ins, for a client's compiler cannot be replaced from outside. They take the place of
`compile_or_get_cached`, which JAX calls with the client and the StableHLO of everything that is to run on it,
eager operations too, and go wrong for this client alone:

- `aborts` and `unimplemented` do so when the first program is compiled: what comes before it, the transfer of an
  array, is no operation.
- `wrong` gives the compiler a program in which every tanh is a sine, and the programs run: wrong numbers, of the
  right shape, from one operation alone.

`segfaults` reads address 0 from within a compiled loop: a call back from XLA's running program, which JAX's
loops are made to hold, on whatever device; where a kernel would crash, the process does.
"""

import base64
import hashlib
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

_CLIENT = """
    import ctypes, os, re, subprocess, sys, time

    import jax
    import jax.extend.backend
    from jax._src import compiler, xla_bridge

    NAME = __name__.rpartition(".")[2]

    def start(factory=xla_bridge.make_cpu_client):
        jax.extend.backend.register_backend_factory(NAME, factory, priority=500, fail_quietly=False)

    def forever():
        time.sleep(10**6)

    def compiled_by(change):
        '''A client, and before each of its programs is compiled `change` is given that.'''
        client = xla_bridge.make_cpu_client()
        compile = compiler.compile_or_get_cached

        def changed(backend, module, *arguments, **options):
            return compile(backend, change(module) if backend is client else module, *arguments, **options)

        compiler.compile_or_get_cached = changed
        return client
"""

_SOURCES = {
    "works": """
        def initialize():
            start()
    """,
    "raises": """
        def initialize():
            raise RuntimeError("there is no such chip\\nin this machine")
    """,
    "raises_in_factory": """
        def factory():
            raise RuntimeError("the chip does not answer")

        def initialize():
            start(factory)
    """,
    "hangs_in_import": """
        forever()
    """,
    "hangs": """
        def initialize():
            forever()
    """,
    "hangs_in_factory": """
        def initialize():
            start(forever)
    """,
    "aborts": """
        def initialize():
            start(lambda: compiled_by(lambda module: os.abort()))
    """,
    "segfaults": """
        def initialize():
            start()
            for_loop, while_loop = jax.lax.fori_loop, jax.lax.while_loop

            def crash():
                jax.debug.callback(lambda: ctypes.string_at(0))

            jax.lax.fori_loop = lambda lower, upper, body, carry: for_loop(
                lower, upper, lambda index, carry: (crash(), body(index, carry))[1], carry
            )
            jax.lax.while_loop = lambda goes_on, body, carry: while_loop(
                goes_on, lambda carry: (crash(), body(carry))[1], carry
            )
    """,
    "wrong": """
        def with_sines(module):
            text = str(module).replace("stablehlo.tanh", "stablehlo.sine").replace("chlo.tanh", "stablehlo.sine")
            return module.parse(text, context=module.context)

        def initialize():
            start(lambda: compiled_by(with_sines))
    """,
    "unimplemented": """
        def refuse(module):
            raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: default_memory_space is not supported.")

        def initialize():
            start(lambda: compiled_by(refuse))
    """,
    "noisy": """
        def initialize():
            for number in range(50_000):
                print(f"{NAME} says line {number} of what nobody asked for: " + "x" * 50, file=sys.stderr)
            start()
    """,
    "zombie": """
        def initialize():
            subprocess.Popen([sys.executable, "-c", "pass"])  # ends, and is not waited for
            subprocess.Popen(["sleep", "600"])  # holds this process's output
            start()
    """,
}
FAKES = tuple(_SOURCES)
_VERSION = "1.0"


def source(kind: str) -> str:
    """The module of a fake plugin."""
    return textwrap.dedent(_CLIENT) + "\n\n" + textwrap.dedent(_SOURCES[kind])


def install(folder: Path, *kinds: str, name: str = "fake-{kind}", version: str = _VERSION) -> Path:
    """Makes wheels of these fakes, installs them to `folder` by pip, and returns that: it goes to a PYTHONPATH."""
    wheels = [make_wheel(folder / "wheels", kind, name.format(kind=kind), version) for kind in kinds]
    target = folder / "installed"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-compile", "--target"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, target, *wheels], check=True)
    return target


def make_wheel(folder: Path, kind: str, name: str, version: str = _VERSION) -> Path:
    """A wheel `name` whose module `fake_{kind}` is announced as a plugin of JAX."""
    stem = f"{name.replace('-', '_')}-{version}"
    files = {
        f"fake_{kind}.py": source(kind),
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/entry_points.txt": f"[jax_plugins]\nfake_{kind} = fake_{kind}\n",
    }
    record = f"{stem}.dist-info/RECORD"
    lines = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, record: "\n".join([*lines, f"{record},,"]) + "\n"}.items():
            archive.writestr(path, text)
    return wheel


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
