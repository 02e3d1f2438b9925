"""Accelerator plugins that misbehave, each a module and a distribution with an entry point of `jax_plugins`.

The accelerator of each is a second CPU client of XLA, registered under its own name by JAX's public
`register_backend_factory`. Three plugins replace `compile_or_get_cached`, to which JAX passes the StableHLO of
every program, because a client's compiler cannot be replaced:

- `aborts` and `unimplemented` fail when the first program is compiled.
- `wrong` compiles every tanh as a sine, so that one operation computes wrong numbers of the right shape.

`segfaults` reads address 0 in a callback that it adds to JAX's loops.
"""

import textwrap
from pathlib import Path

_CLIENT = """
    import ctypes, os, subprocess, sys, time

    import jax
    import jax.extend.backend
    from jax._src import compiler, xla_bridge

    NAME = __name__

    def start(factory=xla_bridge.make_cpu_client):
        jax.extend.backend.register_backend_factory(NAME, factory, priority=500, fail_quietly=False)

    def make_client(change):
        '''Make a client that passes each program to `change` before compiling it.'''
        client = xla_bridge.make_cpu_client()
        compile = compiler.compile_or_get_cached

        def compile_changed(backend, module, *arguments, **options):
            return compile(backend, change(module) if backend is client else module, *arguments, **options)

        compiler.compile_or_get_cached = compile_changed
        return client
"""

_SOURCES = {
    "works": "def initialize(): start()",
    "raises": "def initialize(): raise RuntimeError('there is no such chip\\nin this machine')",
    "raises_in_factory": """
        def factory(): raise RuntimeError("the chip does not answer")
        def initialize(): start(factory)
    """,
    "hangs": "time.sleep(10**6)",
    "aborts": "def initialize(): start(lambda: make_client(lambda module: os.abort()))",
    "segfaults": """
        def initialize():
            start()
            for_loop, while_loop = jax.lax.fori_loop, jax.lax.while_loop
            crash = lambda: jax.debug.callback(lambda: ctypes.string_at(0))
            jax.lax.fori_loop = lambda lower, upper, body, carry: for_loop(
                lower, upper, lambda index, carry: (crash(), body(index, carry))[1], carry
            )
            jax.lax.while_loop = lambda condition, body, carry: while_loop(
                condition, lambda carry: (crash(), body(carry))[1], carry
            )
    """,
    "wrong": """
        def replace_tanh(module):
            text = str(module).replace("stablehlo.tanh", "stablehlo.sine").replace("chlo.tanh", "stablehlo.sine")
            return module.parse(text, context=module.context)

        def initialize(): start(lambda: make_client(replace_tanh))
    """,
    "unimplemented": """
        def refuse(module):
            raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: default_memory_space is not supported.")

        def initialize(): start(lambda: make_client(refuse))
    """,
    "noisy": """
        def initialize():
            for number in range(50_000):
                print(f"{NAME} logs line {number}: " + "x" * 50, file=sys.stderr)
            start()
    """,
    "zombie": """
        def initialize():
            subprocess.Popen([sys.executable, "-c", "pass"])  # ends, but is not waited for
            subprocess.Popen(["sleep", "600"])  # keeps this process's output open
            start()
    """,
}
FAKES = tuple(_SOURCES)


def install_fakes(directory: Path, *kinds: str) -> None:
    """Install plugins of these kinds as `fake-KIND 1.0` in a directory for PYTHONPATH."""
    for kind in kinds:
        source = textwrap.dedent(_CLIENT) + textwrap.dedent(_SOURCES[kind])
        add_plugin(directory, f"fake-{kind}", "1.0", module=f"fake_{kind}", source=source)


def add_plugin(directory: Path, name: str, version: str, *, module: str, source: str) -> None:
    """Install a module and a distribution that announces it as a plugin of JAX."""
    distribution = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    distribution.mkdir(parents=True)
    (directory / f"{module}.py").write_text(source)
    (distribution / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (distribution / "entry_points.txt").write_text(f"[jax_plugins]\n{module} = {module}\n")
