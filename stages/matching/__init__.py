"""Matching boxes to annotated objects: all the papers' IoU rules, each with its name and source.

| what | rule | source |
|---|---|---|
| detections to objects | `detections.match_devkit` | VOCevaldet.m: the AP of VOC |
| | `detections.match_hoiem` | Hoiem et al. 2012, matchDetectionsWithGroundTruth.m: the error analysis |
| | `stages.eval.coco.class_measures` | COCOeval, which does its own matching (pycocotools) |
| types of false positives | `error_types.types_of` | Hoiem et al. 2012, analyzeFalsePositives.m |
| detections and objects to be shown | `judgement.judge` | match_devkit and types_of together |
| proposals to objects | `proposals.best_overlaps`, `recall_at`, ... | Hosang et al. 2016, Uijlings et al. 2013 |
| windows to objects | `windows.window_labels` | R-CNN section 2.3, rcnn_make_window_file.m: fine-tuning |
| | the same with `background_least` | Fast R-CNN section 2.3: its regions |
| | `windows.positive_rows`, `negative_rows` | R-CNN section 2.3 and Appendix B, rcnn_train.m: SVMs |
| | `windows.regression_pairs` | R-CNN Appendix C, rcnn_train_bbox_regressor.m |
| | `windows.shown_labels` | ours: the class shown by a region that activates a unit |
| anchors to objects | `anchors.anchor_labels`, `anchor_deltas` | Faster R-CNN section 3.1.2, anchor_target_layer.py |
| regions not trained on | `examples.unused_regions` | py-faster-rcnn, lib/datasets/coco.py: crowds |

Thresholds are compared only with `stages.boxes.reaches` and `exceeds`, so that an IoU of exactly the threshold reaches
it in any precision.
"""
