"""The CIFAR ResNets of He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), section 4.2.

Depth 6n + 2: a 3x3 stem, three stages of n basic blocks with 16, 32, 64 channels at full, half and quarter
resolution, global average pooling. Shortcuts that change shape subsample and pad with zero channels (option A), so
they hold no weights. These are the ResNet-8 to ResNet-110 that knowledge distillation papers use on CIFAR.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = (8, 14, 20, 32, 56, 110)
WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and an identity shortcut (option A)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.added = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels, ceil(H / stride), ceil(W / stride))."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.added:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return F.relu(out + shortcut)


class CifarResNet(nn.Module):
    """CIFAR ResNet of depth 6n + 2 for `num_classes`; input (B, 3, H, W) of any H, W >= 4."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        if (depth - 2) % 6:
            raise ValueError(f"depth {depth} is not of the form 6n + 2; choose from {DEPTHS}")
        blocks = (depth - 2) // 6
        self.num_classes = num_classes
        self.num_features = WIDTHS[-1]
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        stages = []
        channels = WIDTHS[0]
        for width in WIDTHS:
            for block in range(blocks):
                stride = 2 if block == 0 and width != WIDTHS[0] else 1
                stages.append(BasicBlock(channels, width, stride))
                channels = width
        self.blocks = nn.Sequential(*stages)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 64, H', W')."""
        return self.blocks(F.relu(self.bn1(self.conv1(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, 64, H', W') -> logits (B, num_classes), or the pooled features (B, 64) with `pre_logits`."""
        pooled = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))
