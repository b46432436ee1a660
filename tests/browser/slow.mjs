// The full tour: the short flows, every page, and jobs of 100,000 and of a million images.
import './flows.mjs';
import './slow/axe.test.mjs';
import './slow/scroll.test.mjs';
import './slow/million.test.mjs';
