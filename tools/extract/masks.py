"""Faces by SAM, the Segment Anything Model, prompted as DFIG does.

Source: DFIG's SAM.py: two points, the best of three masks, which is the prompt of a second, single mask;
Kirillov et al., "Segment Anything", ICCV 2023, and its package segment-anything.
"""

import numpy as np
import torch

from common import BadImage, UserError
from networks import checkpoint
from tools.extract.tree import Extraction, begin, encoded, hash_of

POINTS = ((128 / 256, 128 / 256), (128 / 256, 236 / 256))  # (x, y) in shares of an aligned face's sides
WIDTHS = {1280: "vit_h", 1024: "vit_l", 768: "vit_b", 32: "toy"}  # of the image encoder
MODELS = tuple(WIDTHS.values())
FORMATS = {"png": ".png", "jpg95": ".jpg"}


def extract_masks(opt):
    """Writes every face of --input without its background."""
    device = begin(opt)
    identity = {
        "what": "masks",
        "sam_sha256": hash_of(opt.sam),
        "model_type": opt.model_type,
        "points": opt.points,
        "box": opt.box,
        "format": opt.format,
    }
    suffix = FORMATS[opt.format]
    extraction = Extraction(opt, identity, suffix)
    masks = Masks(load_sam(opt.sam, opt.model_type).to(device), opt.points, opt.box)

    def make_files(images):
        return [encoded(suffix, face) for face in masks(images)]

    extraction.run(make_files, device, masks.describe)


class Masks:
    """Cuts faces out: uint8 (B, 3, H, W) -> B arrays (H, W, 3), RGB, black where the mask is not."""

    def __init__(self, sam, points=None, box=None):
        """points: [(x, y)] in pixels, default DFIG's; box: (left, top, right, bottom) instead."""
        self.predictor = require_package().SamPredictor(sam.eval())
        self.points, self.box = points, box
        self.empty = 0

    def __call__(self, images):
        height, width = images.shape[-2:]
        side = self.predictor.model.image_encoder.img_size
        if 0 in self.predictor.transform.get_preprocess_shape(height, width, side):
            raise BadImage(f"{width}x{height} is too narrow for SAM")
        prompt = self.prompt(width, height)
        pictures = images.permute(0, 2, 3, 1).cpu().numpy()
        for picture, embedding in zip(pictures, self.embeddings(pictures), strict=True):
            mask = self.mask(embedding, (height, width), prompt)
            self.empty += not mask.any()
            yield picture * mask[..., None]

    def prompt(self, width, height):
        """Arguments of SamPredictor.predict; BadImage where the prompt lies outside the image."""
        if self.box is not None:
            points, prompt = [self.box[:2], self.box[2:]], {"box": np.array(self.box)}
        else:
            points = self.points or [(x * width, y * height) for x, y in POINTS]
            labels = np.ones(len(points), int)
            prompt = {"point_coords": np.array(points, dtype=float), "point_labels": labels}
        outside = [f"{x:g},{y:g}" for x, y in points if x > width or y > height]
        if outside:
            raise BadImage(f"{width}x{height}: {' '.join(outside)} of the prompt lies outside")
        return prompt

    @torch.inference_mode()
    def embeddings(self, pictures):
        """(1, C, h, w) of each of several pictures (H, W, 3) of one size, through the encoder together."""
        sam = self.predictor.model
        resized = np.stack([self.predictor.transform.apply_image(picture) for picture in pictures])
        self.input_size = resized.shape[1:3]
        images = torch.from_numpy(resized).to(sam.device).permute(0, 3, 1, 2).contiguous()
        return sam.image_encoder(sam.preprocess(images)).split(1)

    def mask(self, embedding, size, prompt):
        """Mask, bool (H, W), of one embedding: the best of three, refined once."""
        predictor = self.predictor
        predictor.reset_image()
        predictor.features, predictor.is_image_set = embedding, True
        predictor.original_size, predictor.input_size = size, self.input_size
        _, scores, logits = predictor.predict(**prompt, multimask_output=True)
        best = logits[np.argmax(scores)][None]
        return predictor.predict(**prompt, mask_input=best, multimask_output=False)[0][0]

    def describe(self):
        """The last words of a run."""
        return f"; empty masks, whose files are black: {self.empty:,}" if self.empty else ""


def require_package():
    """The package segment_anything; UserError where it is not installed."""
    try:
        import segment_anything
    except ImportError as error:
        raise UserError("masks needs the package segment-anything: pip install segment-anything") from error
    return segment_anything


def load_sam(path, model_type):
    """SAM with the weights of a file, on the CPU; CheckpointError where they are of another kind."""
    state = checkpoint.weights(checkpoint.read(path), path)
    sam = toy_sam() if model_type == "toy" else require_package().sam_model_registry[model_type]()
    width = state["image_encoder.pos_embed"].shape[-1] if "image_encoder.pos_embed" in state else None
    hint = f"; it is of --model_type {WIDTHS[width]}" if width in WIDTHS else ""
    checkpoint.load_companion(sam, state, path, f"SAM's {model_type}", hint)
    return sam


def toy_sam():
    """SAM with a small encoder, from the package's own parts: to try commands, not to segment."""
    modeling = require_package().modeling
    side, patch, width = 256, 16, 64
    grid = side // patch
    encoder = modeling.ImageEncoderViT(
        img_size=side,
        patch_size=patch,
        embed_dim=32,
        depth=2,
        num_heads=2,
        out_chans=width,
        use_rel_pos=True,
        window_size=4,
        global_attn_indexes=(1,),
    )
    prompts = modeling.PromptEncoder(
        embed_dim=width, image_embedding_size=(grid, grid), input_image_size=(side, side), mask_in_chans=16
    )
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=64, num_heads=2)
    decoder = modeling.MaskDecoder(transformer_dim=width, transformer=transformer, iou_head_hidden_dim=32)
    return modeling.Sam(encoder, prompts, decoder)
