"""`rcnn report`: the evaluations of one or several recipes as one HTML page that works offline.

`page` builds it from `headline` (the lead), `runs` (the numbers of each evaluation), `tables`, `charts`, `provenance`
(recipes, versions, caches) and `pictures`; `selection` decides which images are shown. page.html, page.css and page.js
are the template.
"""
