"""ResNet-18, the convolutional baseline that the Convolutional X-formers article quotes."""
from __future__ import annotations

from torch import Tensor, nn

from ..embeddings import Size, as_pair, check_images, features_last, halvings
from ..errors import require_count, require_room, require_several

WIDTHS = (64, 128, 256, 512)  # channels of each stage; the later ones begin with stride 2


class ResidualBlock(nn.Module):
    """relu(F(x) + x), F two 3×3 convolutions: eq. (1); where the shape changes relu(F(x) + Wx), eq. (2).

    `[B, channels, H, W] -> [B, width, ⌈H/stride⌉, ⌈W/stride⌉]`; batch normalisation after each convolution.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = (channels, 1) == (width, stride)
        self.downsample = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet-18 with a stem for small pictures: images `[B, C, H, W]` of any size -> class scores `[B, num_classes]`.

    He et al., "Deep Residual Learning for Image Recognition", table 1, 18 layers; weights as they recommend (He et
    al., "Delving Deep into Rectifiers", eq. (14)). The parameters have torchvision's names, whose state dicts fit but
    for the stem: one 3×3 convolution without pooling, because ImageNet's would shrink 32×32 pixels to 8×8 before the
    first block. (Not torchvision's own: to import it takes seconds, in each process that counts parameters.)
    patch_size: the stem's total stride, 1, 2 (the convolution's) or 4 (pooling, too, as for ImageNet).
    """

    def __init__(self, *, image_size: Size = 32, patch_size: int = 1, num_classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        require_count(num_classes=num_classes, channels=channels)
        self.image_size, self.channels, self.num_classes = as_pair("image_size", image_size), channels, num_classes
        height, width = self.image_size
        require_room(WIDTHS[0] * height * width, image_size=image_size)
        require_room(9 * WIDTHS[0] * channels + WIDTHS[-1] * num_classes, channels=channels, num_classes=num_classes)
        convolution, pooling = halvings(patch_size, 2)
        self.stride = 8 * patch_size  # of the whole
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, convolution, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if pooling == 1 else nn.MaxPool2d(3, pooling, padding=1)
        for stage, (before, after) in enumerate(zip(WIDTHS[:1] + WIDTHS, WIDTHS, strict=False), start=1):
            self.add_module(f"layer{stage}", nn.Sequential(
                ResidualBlock(before, after, 1 if stage == 1 else 2), ResidualBlock(after, after, 1)))
        self.fc = nn.Linear(WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def parts(settings: dict) -> tuple[type, ...]:
        """It has no exchangeable parts."""
        return ()

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.channels, self)
        rows, columns = (-(-side // self.stride) for side in images.shape[-2:])
        require_several(images.shape[0] * rows * columns, self.training, images.shape)
        x = self.maxpool(self.relu(self.bn1(self.conv1(features_last(images)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))
