"use strict";

// Everything is read from the page and written back as text, so nothing in a plan can become code.

const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
