"""The programs: ResNet-50 against torchvision's, the arithmetic against torch's own modules."""

import ast
import hashlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from images.workload import generator, programs, weights
from images.workload.events import Refusal
from images.workload.programs import PROGRAMS

pytestmark = pytest.mark.slow

FOLDER = Path(weights.__file__).parent
RESNET = PROGRAMS["resnet50"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Other tests share the machine: OpenMP threads that spin would make this one crawl."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def seeded():
    return programs.seeded(RESNET)


def test_names_and_shapes_are_those_of_torchvisions_state_dict():
    # torchvision 0.29.2:
    #   lines = [f"{k} {list(v.shape)}" for k, v in resnet50().state_dict().items()]
    #   lines = [line for line in lines if "num_batches_tracked" not in line]    # 267 of 320
    #   hashlib.sha256("\n".join(lines).encode()).hexdigest()
    lines = [f"{t.name} {list(t.shape)}" for t in RESNET.tensors()]
    assert len(lines) == 267
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == (
        "6487a6e40bc7989fd428df875229dae6990a235e6c34110c3ef8ff274d7e1214"
    )


def test_resnet50_has_the_published_number_of_parameters():
    # https://pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html
    assert programs.parameters(RESNET) == 25_557_032


def bottleneck(inputs, width, stride):
    """torchvision's Bottleneck, as far as one block needs it, from torch's own modules."""
    from torch import nn

    branch = [
        nn.Conv2d(inputs, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 4 * width, 1, bias=False),
        nn.BatchNorm2d(4 * width),
    ]
    side = []
    if stride != 1 or inputs != 4 * width:
        side = [nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)]
    return nn.ModuleDict({"branch": nn.Sequential(*branch), "side": nn.Sequential(*side)})


def reference_resnet50(state, x):
    """The network of modules, filled with the state dict in its order."""
    import torch
    from torch import nn

    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    model = nn.ModuleList([nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))])
    inputs = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for block in range(count):
            stride = 2 if stage and not block else 1
            model.append(bottleneck(inputs, 64 << stage, stride))
            inputs = 256 << stage
    model.append(nn.Linear(2048, 1000))
    own = [k for k in model.state_dict() if not k.endswith("num_batches_tracked")]
    filled = OrderedDict(zip(own, map(torch.from_numpy, state.values()), strict=True))
    model.load_state_dict(filled, strict=False)
    model.eval()
    x = model[0](x)
    for block in list(model)[1:-1]:
        x = torch.relu(block["branch"](x) + block["side"](x))
    return model[-1](x.mean((2, 3)))


def test_resnet50_computes_what_a_network_of_torchs_own_modules_computes(seeded):
    import torch

    from images.workload.backends.torch_eager import TorchEager

    backend = TorchEager("cpu", "fp32")
    images = generator.images(2, 64)
    with backend.session():
        backend.load(RESNET, seeded)
        ours = backend.fetch(backend.run(backend.place(images)))
        theirs = reference_resnet50(seeded, torch.from_numpy(images)).numpy()
    assert ours.shape == (2, 1000)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_seeded_activations_neither_vanish_nor_outgrow_16_bit_floats(seeded):
    import torch

    from images.workload.backends.torch_eager import TorchOps

    seen = []

    class Watching(TorchOps):
        def relu(self, x):
            seen.append((float(x.std()), float(x.abs().max())))
            return super().relu(x)

    with torch.inference_mode():
        placed = {name: torch.from_numpy(array) for name, array in seeded.items()}
        logits = RESNET.forward(Watching(), placed, torch.from_numpy(generator.images(1, 64)))
    assert len(seen) == 1 + 16 * 3
    assert min(std for std, _ in seen) > 0.1
    assert max(peak for _, peak in seen) < 65504 / 100
    assert 0.1 < float(logits.std()) < 100


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_narrow_precisions_give_the_same_logits_within_their_rounding(seeded, precision):
    from images.workload.backends.torch_eager import TorchEager

    logits = {}
    for name in ("fp32", precision):
        backend = TorchEager("cpu", name)
        with backend.session():
            backend.load(RESNET, seeded)
            logits[name] = backend.fetch(backend.run(backend.place(generator.images(1, 64))))
    scale = np.abs(logits["fp32"]).max()
    epsilon = {"fp16": 2.0**-11, "bf16": 2.0**-8}[precision]
    assert np.abs(logits["fp32"] - logits[precision]).max() < 16 * epsilon * scale
    assert (logits["fp32"] != logits[precision]).any()


def test_the_transformer_computes_what_torchs_own_encoder_computes():
    import torch
    from torch import nn

    from images.workload.backends.torch_eager import TorchOps

    program = PROGRAMS["vit-tiny"]
    state = {k: torch.from_numpy(v) for k, v in programs.seeded(program).items()}
    layers = sum(name.endswith("qkv.weight") for name in state)
    width = state["patch.weight"].shape[0]
    images = torch.from_numpy(generator.images(2, 48))
    with torch.inference_mode():
        x = nn.functional.conv2d(images, state["patch.weight"], stride=16)
        x = x.flatten(2).transpose(1, 2)
        for i in range(layers):
            layer = nn.TransformerEncoderLayer(
                width, 3, 4 * width, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
            ).eval()
            ours = [
                *("qkv.weight", "qkv.bias", "out.weight", "out.bias", "up.weight", "up.bias"),
                *("down.weight", "down.bias", "norm1.weight", "norm1.bias"),
                *("norm2.weight", "norm2.bias"),
            ]
            filled = zip(layer.state_dict(), ours, strict=True)
            layer.load_state_dict({k: state[f"layers.{i}.{name}"] for k, name in filled})
            x = layer(x)
        x = nn.functional.layer_norm(x, (width,), state["norm.weight"], state["norm.bias"], 1e-6)
        theirs = nn.functional.linear(x.mean(1), state["head.weight"], state["head.bias"])
        ours = program.forward(TorchOps(), state, images)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_published_weights_load_from_torch_and_numpy_files_alike(tmp_path):
    import torch

    program = PROGRAMS["vit-tiny"]
    state = programs.seeded(program)
    state["norm.bias"] = state["norm.bias"] + 1
    extra = {**state, "bn1.num_batches_tracked": np.array(7)}
    np.savez(tmp_path / "w.npz", **extra)
    torch.save({k: torch.tensor(v) for k, v in extra.items()}, tmp_path / "w.pth")
    hashes = {
        generator.sha256_of_weights(weights.from_file(program, tmp_path / name))
        for name in ("w.npz", "w.pth")
    }
    assert hashes == {generator.sha256_of_weights(state)}
    assert hashes != {generator.sha256_of_weights(programs.seeded(program))}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("norm.bias"), "norm.bias is missing"),
        (lambda s: s.update({"norm.bias": np.zeros(3)}), r"norm.bias is \(3,\), not \(192,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, change, says):
    program = PROGRAMS["vit-tiny"]
    state = programs.seeded(program)
    change(state)
    np.savez(tmp_path / "w.npz", **state)
    with pytest.raises(Refusal, match=says):
        weights.from_file(program, tmp_path / "w.npz")


def test_a_missing_weights_file_is_refused(tmp_path):
    with pytest.raises(Refusal, match="No such file"):
        weights.from_file(PROGRAMS["vit-tiny"], tmp_path / "absent.npz")


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda p: p.name)
def test_the_workload_is_written_in_python_3_9(path):
    ast.parse(path.read_text(), feature_version=(3, 9))
