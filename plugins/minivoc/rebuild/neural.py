"""The two neural vocoders of the corpus, from TFLite weights that are not part of it (see README.md).

Both map float32 `(N,)` at 16 kHz to float32 `(N,)` at 16 kHz, aligned (their measured lag is 0), like the vocoders of
the package; they are no plugins because the weights are not ours to ship. Needs ai-edge-litert.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from xaibench_minivoc.vocoders import SAMPLE_RATE, align

HIFIGAN_RATE = 22_050  # Hz, the rate of its training data (LJSpeech)
LYRA_HOP = 320  # samples: 20 ms
LYRA_LEVELS = 16  # quantisers of 4 bit each 20 ms: 3.2 kb/s
LYRA_SLOTS = 46  # quantisers the decoder has room for; -1 marks an unused one
LYRA_TAIL = 4  # extra frames, so that the end of the speech leaves the codec


def _interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path), num_threads=1)  # one thread: the sums keep their order


def hifigan(weights: Path) -> Callable[[np.ndarray, int], np.ndarray]:
    """HiFi-GAN (LJSpeech, about 1.5 M parameters, fp16), from an 80-band log-mel spectrum at 22.05 kHz."""
    import librosa
    import soxr

    network = _interpreter(weights / "hifigan_float16.tflite")
    mel = librosa.filters.mel(sr=HIFIGAN_RATE, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
    entrance, exit_ = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]

    def synthesise(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        x = soxr.resample(waveform, sample_rate, HIFIGAN_RATE, quality="VHQ").astype(np.float32)
        padded = np.pad(x, (384, 384), mode="reflect")  # (1024 - 256) / 2, as in the training of the network
        magnitude = np.abs(librosa.stft(padded, n_fft=1024, hop_length=256, center=False))
        features = np.log(np.clip(mel @ magnitude, 1e-5, None)).astype(np.float32)
        network.resize_tensor_input(entrance, [1, 80, features.shape[1]])
        network.allocate_tensors()
        network.set_tensor(entrance, features[None])
        network.invoke()
        y = soxr.resample(network.get_tensor(exit_).ravel(), HIFIGAN_RATE, sample_rate, quality="VHQ")
        return align(y.astype(np.float32), len(waveform), lag=0)

    return synthesise


def lyra(weights: Path) -> Callable[[np.ndarray, int], np.ndarray]:
    """Lyra v2: SoundStream encoder, residual vector quantiser at 3.2 kb/s, LyraGAN decoder. The held-out vocoder."""
    quantizer = _interpreter(weights / "quantizer.tflite")
    encode, decode = quantizer.get_signature_runner("encode"), quantizer.get_signature_runner("decode")

    def codes(features: np.ndarray) -> np.ndarray:
        answer = encode(input_frames=features, num_quantizers=np.int32(LYRA_LEVELS))
        found = next(v for v in answer.values() if np.issubdtype(v.dtype, np.integer))
        slots = -np.ones((LYRA_SLOTS, 1, 1), np.int32)
        used = np.asarray(found).reshape(-1, 1, 1).astype(np.int32)[:LYRA_LEVELS]
        slots[: len(used)] = used
        return slots

    def synthesise(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        if sample_rate != SAMPLE_RATE:
            raise ValueError(f"lyra: {sample_rate} Hz, expected {SAMPLE_RATE} Hz")
        # Encoder and decoder carry state from frame to frame, so each utterance gets fresh ones.
        encoder, decoder = (_interpreter(weights / name) for name in ("soundstream_encoder.tflite", "lyragan.tflite"))
        encoder.allocate_tensors()
        decoder.allocate_tensors()
        frames = -(-len(waveform) // LYRA_HOP) + LYRA_TAIL
        padded = np.zeros(frames * LYRA_HOP, np.float32)
        padded[: len(waveform)] = waveform
        out = []
        for frame in padded.reshape(frames, LYRA_HOP):
            encoder.set_tensor(encoder.get_input_details()[0]["index"], frame[None])
            encoder.invoke()
            features = encoder.get_tensor(encoder.get_output_details()[0]["index"])
            quantized = next(iter(decode(encoding_indices=codes(features)).values()))
            decoder.set_tensor(decoder.get_input_details()[0]["index"], quantized.astype(np.float32))
            decoder.invoke()
            out.append(decoder.get_tensor(decoder.get_output_details()[0]["index"]).ravel().copy())
        return align(np.concatenate(out), len(waveform), lag=0)

    return synthesise
