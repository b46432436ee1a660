// The full tour: the short flows, every page, and a job of 100,000 images.
import './flows.mjs';
import './slow/axe.test.mjs';
import './slow/scroll.test.mjs';
