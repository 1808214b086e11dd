// Finding what an id stands for: an event, a notification, a delivery, or something that a provider named.

import { get, Problem } from "./api.js";

/** The place in this page of what `id` stands for; null where there is nothing. */
export async function find(id) {
  const segment = encodeURIComponent(id);
  if (await known(`/api/events/${segment}`)) return `#/events/${segment}`;
  if (await known(`/api/notifications/${segment}/delivery-status`)) return `#/notifications/${segment}`;
  const found = await known("/api/deliveries", { reference: id, limit: 1 });
  return found?.data.length ? `#/notifications/${found.data[0].notificationId}` : null;
}

async function known(path, query) {
  try {
    return await get(path, query);
  } catch (error) {
    if (error instanceof Problem && [404, 422].includes(error.status)) return null;
    throw error;
  }
}
