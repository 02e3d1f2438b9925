// JAX's default random numbers: threefry2x32 with 20 rounds (Salmon et al. 2011, "Parallel Random Numbers: As Easy
// as 1, 2, 3"), and the functions of `jax.random` that `jaxlm sample` calls. A key is a pair of uint32.

const THREEFRY_ROTATIONS = [
  [13, 15, 26, 6],
  [17, 29, 16, 24],
];

// Encrypt the counter, a pair of uint32, with a key.
function threefry2x32([key0, key1], [counter0, counter1]) {
  const keys = [key0, key1, key0 ^ key1 ^ 0x1bd11bda];
  let x0 = (counter0 + key0) | 0;
  let x1 = (counter1 + key1) | 0;
  for (let group = 0; group < 5; group++) {
    for (const rotation of THREEFRY_ROTATIONS[group % 2]) {
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << rotation) | (x1 >>> (32 - rotation))) ^ x0;
    }
    x0 = (x0 + keys[(group + 1) % 3]) | 0;
    x1 = (x1 + keys[(group + 2) % 3] + group + 1) | 0;
  }
  return [x0 >>> 0, x1 >>> 0];
}

// `jax.random.key(seed)` for a seed in [0, 2**32 - 1].
function makeKey(seed) {
  return [0, seed >>> 0];
}

// `jax.random.fold_in(key, data)`.
function foldIn(key, data) {
  return threefry2x32(key, [0, data >>> 0]);
}

// `jax.random.uniform(key, (1,))[0]`, with `jax_threefry_partitionable`, the default since jax 0.5.0.
function drawUniform(key) {
  const [high, low] = threefry2x32(key, [0, 0]);
  return ((high ^ low) >>> 9) / 2 ** 23;
}
