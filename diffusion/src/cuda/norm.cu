// Group normalisation, steering by the time and an activation over channels-last pictures, and the
// sum at the end of a residual block. This takes three passes over memory; libtorch needs eight
// passes and two changes of layout.
//
// NVRTC compiles this on the machine for its card; see kernels.rs, which has the same `Norm` and
// `Sum`. No header is needed, because bf16 is a half-word here. Each row is summed separately, in
// an order that depends only on the picture's shape. The tests compile this file for the CPU, with
// one thread per lane, so lanes exchange values only through SHARED.

#ifndef DARKROOM_ON_HOST
#define SHARED extern __shared__ double shared[]
#endif

typedef unsigned short bf16;
typedef long long i64;

const int THREADS = 256;

// Picture `x` with `skip` behind it in the channels, multiplied by its factor.
struct Norm {
  const void* x;       // [rows, pixels, own]
  const void* skip;    // [rows, pixels, channels - own], or null
  const float* before; // [channels], added first; or null
  const void* added;   // [rows, channels], added first; or null
  const float* weight; // [channels]
  const float* bias;   // [channels]
  const void* steer;   // [rows, 2 * channels]: times the first half, plus the second; or null
  void* out;           // [rows, pixels, channels]
  float* partial;      // [rows, chunks, groups, 2]
  float* moments;      // [rows, groups, 2]: mean, 1 / deviation
  i64 pixels;
  i64 chunk; // pixels of a chunk
  int channels;
  int own;
  int groups;
  int chunks;
  int activation;
  float factor;
  float eps;
};

// (a + b + bias) / divisor.
struct Sum {
  const void* a;     // [count / channels, channels]
  const void* b;     // the same
  const float* bias; // [channels]
  void* out;
  i64 count;
  int channels;
  float divisor;
};

struct Quad {
  float v[4];
};

__device__ inline float wide(float value) {
  return value;
}

__device__ inline float wide(bf16 value) {
  return __uint_as_float((unsigned)value << 16);
}

__device__ inline void narrow(float value, float& out) {
  out = value;
}

// To the nearest, ties to even.
__device__ inline void narrow(float value, bf16& out) {
  const unsigned bits = __float_as_uint(value);
  out = value != value ? 0x7fc0 : (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Four values at once; `at` and the address are multiples of four values.
template <typename T>
struct alignas(4 * sizeof(T)) Four {
  T v[4];
};

template <typename T>
__device__ inline Quad load(const T* from, i64 at) {
  const Four<T> four = *(const Four<T>*)(from + at);
  Quad quad;
  for (int i = 0; i < 4; ++i) quad.v[i] = wide(four.v[i]);
  return quad;
}

template <typename T>
__device__ inline void store(T* to, i64 at, const Quad& quad) {
  Four<T> four;
  for (int i = 0; i < 4; ++i) narrow(quad.v[i], four.v[i]);
  *(Four<T>*)(to + at) = four;
}

// Four channels of a row: `from[pixel * stride]`, times `factor`, plus `add`.
template <typename T>
struct Source {
  const T* from;
  int stride;
  float factor;
  float add[4];

  __device__ Source(const Norm& n, int row, int channel) {
    const bool behind = channel >= n.own;
    stride = behind ? n.channels - n.own : n.own;
    from = (behind ? (const T*)n.skip : (const T*)n.x) + row * n.pixels * stride + (behind ? channel - n.own : channel);
    factor = behind ? n.factor : 1.0f;
    for (int i = 0; i < 4; ++i) {
      add[i] = n.before ? n.before[channel + i] : 0.0f;
      if (n.added) add[i] += wide(((const T*)n.added)[(i64)row * n.channels + channel + i]);
    }
  }

  __device__ Quad at(i64 pixel) const {
    Quad quad = load(from, pixel * stride);
    for (int i = 0; i < 4; ++i) quad.v[i] = quad.v[i] * factor + add[i];
    return quad;
  }
};

// A value near those of the group. Sums are taken of differences from it; otherwise their squares
// would lose the precision of the variance.
template <typename T>
__device__ inline float near(const Norm& n, int row, int group) {
  const int channel = group * (n.channels / n.groups);
  return Source<T>(n, row, channel / 4 * 4).at(0).v[channel % 4];
}

// The threads of a block as lanes that divide the pixels. Each thread has its own four channels.
struct Lanes {
  int across; // threads beside each other in the channels
  int count;  // lanes, a power of two
  int quad;
  int lane;

  __device__ Lanes(int quads) {
    across = quads < THREADS ? quads : THREADS;
    count = 1;
    while (count * 2 * across <= THREADS) count *= 2;
    quad = threadIdx.x % across;
    lane = threadIdx.x / across;
  }
};

// Sums of a chunk's values and of their squares, both less `near`. Grid: chunks, rows.
template <typename T>
__device__ void sum_up(const Norm& n) {
  SHARED;
  const int row = blockIdx.y, quads = n.channels / 4, of_group = n.channels / n.groups;
  const Lanes lanes(quads);
  float* sums = (float*)shared;
  float* squares = sums + lanes.count * n.channels;
  const i64 first = blockIdx.x * n.chunk, end = first + n.chunk < n.pixels ? first + n.chunk : n.pixels;
  for (int quad = lanes.quad; quad < quads && lanes.lane < lanes.count; quad += lanes.across) {
    const Source<T> source(n, row, quad * 4);
    Quad from, sum = {}, square = {};
    for (int i = 0; i < 4; ++i) from.v[i] = near<T>(n, row, (quad * 4 + i) / of_group);
    for (i64 pixel = first + lanes.lane; pixel < end; pixel += lanes.count) {
      const Quad values = source.at(pixel);
      for (int i = 0; i < 4; ++i) {
        const float value = values.v[i] - from.v[i];
        sum.v[i] += value;
        square.v[i] += value * value;
      }
    }
    for (int i = 0; i < 4; ++i) {
      sums[lanes.lane * n.channels + quad * 4 + i] = sum.v[i];
      squares[lanes.lane * n.channels + quad * 4 + i] = square.v[i];
    }
  }
  __syncthreads();
  for (int half = lanes.count / 2; half > 0; half /= 2) {
    for (int i = threadIdx.x; i < half * n.channels; i += THREADS) {
      sums[i] += sums[i + half * n.channels];
      squares[i] += squares[i + half * n.channels];
    }
    __syncthreads();
  }
  for (int group = threadIdx.x; group < n.groups; group += THREADS) {
    float sum = 0.0f, square = 0.0f;
    for (int i = group * of_group; i < (group + 1) * of_group; ++i) {
      sum += sums[i];
      square += squares[i];
    }
    float* partial = n.partial + (((i64)row * n.chunks + blockIdx.x) * n.groups + group) * 2;
    partial[0] = sum;
    partial[1] = square;
  }
}

// Mean and deviation of each group, from all chunks' sums. Grid: rows. At most THREADS groups.
template <typename T>
__device__ void combine(const Norm& n) {
  SHARED;
  const int row = blockIdx.x;
  int lanes = 1;
  while (lanes * 2 * n.groups <= THREADS) lanes *= 2;
  const int group = threadIdx.x % n.groups, lane = threadIdx.x / n.groups;
  const int values = lanes * n.groups;
  if (lane < lanes) {
    double sum = 0.0, square = 0.0;
    for (int chunk = lane; chunk < n.chunks; chunk += lanes) {
      const float* partial = n.partial + (((i64)row * n.chunks + chunk) * n.groups + group) * 2;
      sum += partial[0];
      square += partial[1];
    }
    shared[lane * n.groups + group] = sum;
    shared[values + lane * n.groups + group] = square;
  }
  __syncthreads();
  for (int half = lanes / 2; half > 0; half /= 2) {
    if (lane < half) {
      shared[lane * n.groups + group] += shared[(lane + half) * n.groups + group];
      shared[values + lane * n.groups + group] += shared[values + (lane + half) * n.groups + group];
    }
    __syncthreads();
  }
  if (lane == 0) {
    const double count = (double)n.pixels * (n.channels / n.groups);
    const double mean = shared[group] / count;
    const double variance = shared[values + group] / count - mean * mean;
    float* moments = n.moments + ((i64)row * n.groups + group) * 2;
    moments[0] = (float)(near<T>(n, row, group) + mean);
    // Rounding may give a value below 0; NaN stays NaN.
    moments[1] = (float)(1.0 / sqrt((variance < 0.0 ? 0.0 : variance) + n.eps));
  }
}

__device__ inline float activate(int activation, float x) {
  switch (activation) {
    case 1: return x / (1.0f + expf(-x));
    case 2: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case 3: return x > 0.0f ? x : (x != x ? x : 0.0f);
    case 4: return x * tanhf(x > 20.0f ? x : log1pf(expf(x)));
    default: return x;
  }
}

// Grid: chunks, rows.
template <typename T>
__device__ void apply(const Norm& n) {
  const int row = blockIdx.y, quads = n.channels / 4, of_group = n.channels / n.groups;
  const Lanes lanes(quads);
  const i64 first = blockIdx.x * n.chunk, end = first + n.chunk < n.pixels ? first + n.chunk : n.pixels;
  T* out = (T*)n.out + row * n.pixels * n.channels;
  for (int quad = lanes.quad; quad < quads && lanes.lane < lanes.count; quad += lanes.across) {
    const Source<T> source(n, row, quad * 4);
    Quad mean, weight, bias, scale, shift;
    for (int i = 0; i < 4; ++i) {
      const int channel = quad * 4 + i;
      const float* moments = n.moments + ((i64)row * n.groups + channel / of_group) * 2;
      mean.v[i] = moments[0];
      weight.v[i] = moments[1] * n.weight[channel];
      bias.v[i] = n.bias[channel];
      const T* steer = (const T*)n.steer + (i64)row * 2 * n.channels + channel;
      scale.v[i] = n.steer ? wide(steer[0]) : 1.0f;
      shift.v[i] = n.steer ? wide(steer[n.channels]) : 0.0f;
    }
    for (i64 pixel = first + lanes.lane; pixel < end; pixel += lanes.count) {
      Quad values = source.at(pixel);
      for (int i = 0; i < 4; ++i) {
        const float normed = (values.v[i] - mean.v[i]) * weight.v[i] + bias.v[i];
        values.v[i] = activate(n.activation, normed * scale.v[i] + shift.v[i]);
      }
      store(out, pixel * n.channels + quad * 4, values);
    }
  }
}

template <typename T>
__device__ void sum(const Sum& s) {
  const i64 step = (i64)gridDim.x * THREADS * 4;
  for (i64 at = ((i64)blockIdx.x * THREADS + threadIdx.x) * 4; at < s.count; at += step) {
    const Quad a = load((const T*)s.a, at), b = load((const T*)s.b, at);
    const int channel = (int)(at % s.channels);
    Quad out;
    for (int i = 0; i < 4; ++i) out.v[i] = (a.v[i] + b.v[i] + s.bias[channel + i]) / s.divisor;
    store((T*)s.out, at, out);
  }
}

extern "C" {
__global__ void sum_up_f32(const Norm n) { sum_up<float>(n); }
__global__ void sum_up_bf16(const Norm n) { sum_up<bf16>(n); }
__global__ void combine_f32(const Norm n) { combine<float>(n); }
__global__ void combine_bf16(const Norm n) { combine<bf16>(n); }
__global__ void apply_f32(const Norm n) { apply<float>(n); }
__global__ void apply_bf16(const Norm n) { apply<bf16>(n); }
__global__ void sum_f32(const Sum s) { sum<float>(s); }
__global__ void sum_bf16(const Sum s) { sum<bf16>(s); }
}
