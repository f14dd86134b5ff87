"""Faces by SAM, the Segment Anything Model, prompted as DFIG does.

Source: DFIG's SAM.py: two points, the best of three masks, which is the prompt of a second, single mask;
Kirillov et al., "Segment Anything", ICCV 2023, and its package segment-anything.
"""

import numpy as np

from common import BadImage, require_package, sha256
from networks import checkpoint
from tools.extract.tree import Extraction, encoded

POINTS = ((128 / 256, 128 / 256), (128 / 256, 236 / 256))  # (x, y) in shares of an aligned face's sides
WIDTHS = {1280: "vit_h", 1024: "vit_l", 768: "vit_b", 32: "toy"}  # of the image encoder
MODELS = tuple(WIDTHS.values())
FORMATS = {"png": ".png", "jpg95": ".jpg"}
PACKAGE = ("segment-anything", "masks", "segment_anything")


def extract_masks(opt):
    """Writes every face of --input without its background."""
    settings = {name: getattr(opt, name) for name in ("model_type", "points", "box", "format")}
    suffix, empty = FORMATS[opt.format], 0
    extraction = Extraction(opt, {"sam_sha256": sha256(opt.sam), **settings}, suffix)
    sam = load_sam(opt.sam, opt.model_type).to(extraction.device).eval()
    predictor = require_package(*PACKAGE).SamPredictor(sam)

    def make_files(images):
        nonlocal empty
        height, width = images.shape[-2:]
        if 0 in predictor.transform.get_preprocess_shape(height, width, sam.image_encoder.img_size):
            raise BadImage(f"{width}x{height} is too narrow for SAM")
        prompt = prompt_for(width, height, opt.points, opt.box)
        for picture in images.permute(0, 2, 3, 1).cpu().numpy():
            mask = face_mask(predictor, picture, prompt)
            empty += not mask.any()
            yield encoded(suffix, picture * mask[..., None])

    extraction.run(make_files)
    if empty:
        print(f"empty masks, whose files are black: {empty:,}")


def prompt_for(width, height, points=None, box=None):
    """Arguments of SamPredictor.predict; BadImage where the prompt is outside the image.

    points: [(x, y)] in pixels, default DFIG's; box: (left, top, right, bottom) instead.
    """
    if box is not None:
        points, prompt = [box[:2], box[2:]], {"box": np.array(box)}
    else:
        points = points or [(x * width, y * height) for x, y in POINTS]
        labels = np.ones(len(points), int)
        prompt = {"point_coords": np.array(points, dtype=float), "point_labels": labels}
    outside = [f"{x:g},{y:g}" for x, y in points if x > width or y > height]
    if outside:
        raise BadImage(f"{width}x{height}: {' '.join(outside)} of the prompt is outside")
    return prompt


def face_mask(predictor, picture, prompt):
    """Mask, bool (H, W), of a picture, uint8 RGB (H, W, 3): the best of three, refined once."""
    predictor.set_image(picture)
    _, scores, logits = predictor.predict(**prompt, multimask_output=True)
    best = logits[np.argmax(scores)][None]
    return predictor.predict(**prompt, mask_input=best, multimask_output=False)[0][0]


def load_sam(path, model_type):
    """SAM with the weights of a file, on the CPU; CheckpointError where they are of another kind."""
    state = checkpoint.unwrapped(checkpoint.read(path), path)[0]
    published = require_package(*PACKAGE).sam_model_registry
    sam = toy_sam() if model_type == "toy" else published[model_type]()
    width = state["image_encoder.pos_embed"].shape[-1] if "image_encoder.pos_embed" in state else None
    hint = f"; it is of --model_type {WIDTHS[width]}" if width in WIDTHS else ""
    checkpoint.load_weights(sam, state, path, f"SAM's {model_type}", hint)
    return sam


def toy_sam():
    """SAM with a small encoder, from the package's own parts: to try commands, not to segment."""
    modeling = require_package(*PACKAGE).modeling
    side, patch, width = 256, 16, 64
    grid = side // patch
    sizes = {"img_size": side, "patch_size": patch, "embed_dim": 32, "depth": 2, "num_heads": 2}
    attention = {"use_rel_pos": True, "window_size": 4, "global_attn_indexes": (1,)}
    encoder = modeling.ImageEncoderViT(out_chans=width, **sizes, **attention)
    prompts = modeling.PromptEncoder(
        embed_dim=width, image_embedding_size=(grid, grid), input_image_size=(side, side), mask_in_chans=16
    )
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=64, num_heads=2)
    decoder = modeling.MaskDecoder(transformer_dim=width, transformer=transformer, iou_head_hidden_dim=32)
    return modeling.Sam(encoder, prompts, decoder)
