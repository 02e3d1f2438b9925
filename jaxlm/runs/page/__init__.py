"""A web page on which models continue a text in the browser, with the text that `jaxlm sample` writes."""
