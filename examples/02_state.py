"""State has four scopes: of a conversation, of a user, of an app, and of one turn."""

import asyncio

from tertulia import Runtime


async def main() -> None:
    """Show who sees what."""
    async with Runtime("memory:") as runtime:
        monday = runtime.session("monday", app_name="shop", user_id="ann")
        friday = runtime.session("friday", app_name="shop", user_id="ann")

        monday.set_state("cart", ["apple"])
        monday.set_state("language", "es", scope="user")
        monday.set_state("currency", "EUR", scope="app")
        print("friday's cart:", friday.get_state("cart"))
        print("friday's language:", friday.state.user["language"])
        print("friday's currency:", friday.state.app["currency"])

        async def visit(session_id: str) -> None:
            session = runtime.session(session_id, app_name="shop", user_id="ann")
            await session.update_state("visits", lambda n: n + 1, scope="user", default=0)

        await asyncio.gather(*(visit(f"visit {n}") for n in range(50)))
        print("visits, of 50 at once:", friday.state.user["visits"])

        try:
            async with monday.turn("Take two apples."):
                monday.set_state("cart", ["apple", "apple"])
                raise RuntimeError("the shop is closed")
        except RuntimeError as error:
            print(f"{error}; the cart is as it was:", monday.state["cart"])


asyncio.run(main())
