"""ResNet-18, the convolutional baseline that the Convolutional X-formers article quotes."""
from __future__ import annotations

from torch import Tensor, nn

from ..embeddings import Size, as_pair, check_images, halvings
from ..errors import require_count, require_room, require_several


class ResNet18(nn.Module):
    """torchvision's ResNet-18 with a stem for small pictures.

    He et al., "Deep Residual Learning for Image Recognition".

    Images `[B, C, H, W]` of any size -> class scores `[B, num_classes]`. The stem is one 3×3 convolution without
    pooling, because ImageNet's would shrink 32×32 pixels to 8×8 before the first block.
    patch_size: the stem's total stride, 1, 2 (the convolution's) or 4 (pooling, too, as for ImageNet).
    """

    def __init__(self, *, image_size: Size = 32, patch_size: int = 1, num_classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        from torchvision.models import resnet18

        require_count(num_classes=num_classes, channels=channels)
        self.image_size, self.channels, self.num_classes = as_pair("image_size", image_size), channels, num_classes
        height, width = self.image_size
        require_room(64 * height * width, image_size=image_size)
        require_room(576 * channels + 512 * num_classes, channels=channels, num_classes=num_classes)
        self.stride = 8 * patch_size  # of the whole, once `halvings` has taken patch_size
        self.net = resnet18(num_classes=num_classes)
        convolution, pooling = halvings(patch_size, 2)
        self.net.conv1 = nn.Conv2d(channels, 64, 3, stride=convolution, padding=1, bias=False)
        if pooling == 1:
            self.net.maxpool = nn.Identity()

    @staticmethod
    def parts(settings: dict) -> tuple[type, ...]:
        """It has no exchangeable parts."""
        return ()

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.channels, self)
        rows, columns = (-(-side // self.stride) for side in images.shape[-2:])
        require_several(len(images) * rows * columns, self.training, images.shape)
        return self.net(images)
